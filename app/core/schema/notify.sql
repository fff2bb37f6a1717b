
-- Tells a channel of a payload, by NOTIFY: at most 7,999 bytes in the server's encoding. PostgreSQL would refuse more, and
-- with it the write.
CREATE OR REPLACE FUNCTION notifymux.notify(channel text, payload text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF octet_length(payload) > 7999 THEN
        payload := notifymux.shortened(payload, 7999);
    END IF;
    -- Outside of every block with EXCEPTION: for each subtransaction that notifies, PostgreSQL keeps 8 KiB of memory until
    -- the transaction ends.
    PERFORM pg_notify(channel, payload);
END
$$;
