# syntax=docker/dockerfile:1
# unknown=value
# escape=`
FROM scratch
RUN a ` b \
  c
