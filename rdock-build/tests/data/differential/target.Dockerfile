FROM base AS one
RUN echo one > /one
FROM one AS Two
RUN echo two > /two
FROM base AS three
RUN exit 1
FROM two
RUN exit 1
