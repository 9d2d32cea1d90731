"""Requests: when each arrived, waited, ran and ended, in the front end and in the scheduler, and every preemption."""
