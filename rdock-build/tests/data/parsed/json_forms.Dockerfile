FROM scratch
CMD ["a", "b c"]
CMD [ "a" ]  
CMD []
CMD ["a" 'b']
CMD ["a"] trailing
ENTRYPOINT ["\u0041\n"]
VOLUME ["/a b", "/c"]
COPY ["a b", "c d/"]
SHELL ["/bin/bash", "-c"]
