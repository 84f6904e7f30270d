FROM base
RUN mkdir -p /d/sub && echo 1 > /d/sub/one && echo 2 > /d/two && ln -s two /d/link && echo 3 > /three
RUN rm -r /d/sub && rm /three && echo new > /d/three
RUN rm -r /d && mkdir /d && echo only > /d/only
RUN rm -r /srv && ln -s /tmp /srv && rm /d/only && mkdir /d/only
RUN rm /etc/group && mv /etc/passwd /etc/moved && echo brief > /brief && rm /brief
RUN mv /etc/moved /etc/passwd && chmod 600 /etc/passwd
