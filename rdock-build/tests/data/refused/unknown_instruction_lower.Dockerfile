from scratch
rum x
