FROM base
RUN echo shell $0 > /shell
RUN ["/bin/sh", "-c", "echo exec $0 > /exec", "zero"]
RUN ["sh", "-c", "echo path > /path"]
SHELL ["/bin/sh", "-e", "-c"]
RUN echo again $- > /again
CMD shell form
ENTRYPOINT other form
