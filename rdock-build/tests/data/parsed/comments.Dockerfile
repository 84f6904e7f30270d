# above all

# about base
FROM scratch
#
# about run
RUN true # not a comment
  # indented
RUN false
