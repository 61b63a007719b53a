"""The parts of `.ci/semantics.py`: AMD's pseudocode, run by an evaluator that shares nothing with the emulator."""
