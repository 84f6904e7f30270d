from scratch
run true
onbuild run later
Cmd x
