FROM scratch
COPY --from=0 --chown=1:2 --chmod=u=rwX,go=rX --link --parents --exclude=*.a --exclude=b/** a b /c/
COPY --link=false --chown= a b
ADD --checksum=sha256:00 --unpack=true --link=TRUE https://host/x.tar /x/
ADD a.tar b.tar /
