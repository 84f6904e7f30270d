# syntax=docker/dockerfile:1
# Escape = `
# check=skip=all
# not=one
FROM scratch
COPY C:\dir `
  /dir/
