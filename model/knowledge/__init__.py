"""Clinical knowledge: findings and their effects on tasks, stated as data with their sources."""
