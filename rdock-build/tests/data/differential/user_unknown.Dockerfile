FROM base
USER nobody-of-that-name
RUN true
