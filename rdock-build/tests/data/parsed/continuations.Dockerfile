FROM scratch
RUN one \
  # a comment in between
  two \  

  three
ENV a=x\\
ENV b=y
RUN last \