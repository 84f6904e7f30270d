ARG image=base version=1
ARG both=${image}-$version
ARG overridden=default
FROM ${image} AS stage
ARG version
ARG both=local
ARG overridden
RUN echo "$version $both $overridden $image" > /one
FROM stage
RUN echo "$version $both $overridden" > /two
ARG image
RUN echo "$image" > /three
FROM base
COPY --from=1 /one /two /three /x/
RUN echo "${version-none}" > /four
