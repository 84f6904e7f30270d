FROM scratch
RUN one \
  two
COPY <<E /f
line
E
