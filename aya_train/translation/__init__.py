"""Instruction data made by translation: texts cut and put back, engines, checks of each row."""
