-- Appends a batch of events to the stream and publishes them, atomically (rules 7 and 9 of docs/numbering.md).
-- KEYS[1]  the stream
-- ARGV     pub/sub channel, STREAM_MAXLEN, epoch, first sequence, the latest epoch that a listener can have begun, '1' to
--          restore (append without publishing), the WAL's place of the entry before the first one or '', texts...
-- A later head was written by a stranger. The stream is deleted with it: listeners restore it as after any other loss.
-- Returns  the status, the epoch and the sequence of the head afterwards, the number of entries added.
local stream, channel, maxlen = KEYS[1], ARGV[1], ARGV[2]
local epoch, first, latest, restore = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'
local after, texts = ARGV[7], 7

local function place(text) -- the WAL's, which is an event's last field; nil without one
  return string.match(text, '"place":"([^"]*)"}$')
end

local head = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local head_epoch, head_sequence = 0, 0
if head then
  local e, s = string.match(head[1], '^(%d+)-(%d+)$')
  head_epoch, head_sequence = tonumber(e), tonumber(s)
end

if head_epoch > epoch then
  if head_epoch <= latest then
    return {'superseded', head_epoch, head_sequence, 0}
  end
  redis.call('DEL', stream)
  head, head_epoch, head_sequence = nil, 0, 0
end
local skip = 0
if head_epoch == epoch then
  if first > head_sequence + 1 then
    return {'gap', head_epoch, head_sequence, 0}
  end
  skip = math.min(head_sequence - first + 1, #ARGV - texts)
  -- Readers of the WAL name the entry that they follow: the head has to be that one, or the same of what they append.
  local expected = skip == 0 and after or place(ARGV[texts + skip])
  if after ~= '' and head_sequence == first + skip - 1 and place(head[2][2]) ~= expected then
    return {'gap', head_epoch, head_sequence, 0}
  end
elseif first ~= 1 and not restore then
  return {'behind', head_epoch, head_sequence, 0}
end
if not head then
  redis.call('DEL', stream) -- an emptied stream still refuses ids below the last one it had
end

for i = texts + 1 + skip, #ARGV do
  head_epoch, head_sequence = epoch, first + i - texts - 1
  redis.call('XADD', stream, 'MAXLEN', '~', maxlen, string.format('%.0f-%.0f', epoch, head_sequence), 'event', ARGV[i])
  if not restore then
    redis.call('PUBLISH', channel, ARGV[i])
  end
end
return {'ok', head_epoch, head_sequence, #ARGV - texts - skip}
