FROM scratch
ENV dir="a b" ports="80 90/udp" user=me
WORKDIR /$dir/${none:-x}
VOLUME $dir "$dir/c"
EXPOSE $ports 100
USER ${user}:1
STOPSIGNAL ${sig:-9}
LABEL "$user"="$dir" 'single $user'=\$user
COPY --chown=$user --exclude=$user $dir/x "$dir" /$user/
ADD --chmod=${mode:-644} --checksum=$sum https://h/$user /x
CMD $user
ENTRYPOINT ["$user"]
HEALTHCHECK CMD $user
