
-- Tells a channel of a payload, by a message in the WAL that is part of the transaction: at most 1 MiB in the server's
-- encoding. It refuses the channels that NOTIFY refuses.
CREATE OR REPLACE FUNCTION notifymux.notify(channel text, payload text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF channel IS NULL OR octet_length(channel) NOT BETWEEN 1 AND 63 THEN
        RAISE 'a channel has 1 to 63 bytes: %', coalesce(quote_literal(channel), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF octet_length(payload) > 1048576 THEN
        payload := notifymux.shortened(payload, 1048576);
    END IF;
    PERFORM pg_logical_emit_message(true, 'notifymux:' || channel, coalesce(payload, ''));
END
$$;

DO $$
BEGIN
    IF current_setting('wal_level') <> 'logical' THEN
        RAISE WARNING 'wal_level is %: nothing can read the messages in the WAL before it is logical',
            current_setting('wal_level');
    END IF;
END
$$;
