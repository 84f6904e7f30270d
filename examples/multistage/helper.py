WORD = "and a module"
