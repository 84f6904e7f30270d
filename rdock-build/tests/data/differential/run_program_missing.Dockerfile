FROM base
RUN ["/no/such/program"]
