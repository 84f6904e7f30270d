# a comment ends the directives
# escape=`
FROM scratch
ENV a=b \
  c=d
