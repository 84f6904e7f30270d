FROM base AS parent
ONBUILD ARG what=default
ONBUILD RUN echo "$what" > /triggered
ONBUILD COPY a.txt /from-context
ONBUILD ENV triggered=yes
RUN echo parent > /parent
FROM parent AS child
RUN echo child > /child
FROM child
RUN test -e /triggered && echo grandchild > /grandchild
ONBUILD RUN later
