"""Objectives of a student that sees its teacher's logits, a file each; `loop/student/white_box.py` trains by them."""
