"""TIM, the task interaction matrix: coalitions of tasks, their training and their values."""
