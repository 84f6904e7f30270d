FROM base
RUN mkdir -p /x/top/deep /x/packed/file/deep && echo x > /x/top/file
ADD archive.tar /x/
