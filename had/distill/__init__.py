"""Distillation: the schedule of stages, the losses, and the teacher."""
