"""Learns: cohorts of patients, the network, training, evaluation."""
