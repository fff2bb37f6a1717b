-- Appends a batch of events to the stream and publishes them, atomically (rules 7 and 9 of docs/numbering.md).
-- KEYS[1]  the stream
-- KEYS[2]  a hash: how many bytes of texts were appended
-- ARGV     pub/sub channel, STREAM_MAXLEN, STREAM_MAXBYTES, epoch, first sequence, the latest epoch that a listener can
--          have begun, '1' to restore (append without publishing), the WAL's place of the entry before the first one or
--          '', texts...
-- A later head was written by a stranger. The stream is deleted with it: listeners restore it as after any other loss.
-- Returns  the status, the epoch and the sequence of the head afterwards, the number of entries added.
local stream, counts, channel, maxlen, maxbytes = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
local epoch, first, latest, restore = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'
local after, texts = ARGV[8], 8

local function place(text) -- the WAL's, which is an event's last field; nil without one
  return string.match(text, '"place":"([^"]*)"}$')
end

-- Counts bytes that are about to be appended after the entry `head`. At each sixteenth of STREAM_MAXBYTES, head and count
-- are kept as a mark, so that it is known from which entry on the newest ones fit. Returns the first entry to keep, if
-- older ones have to go. The count starts anew where somebody else has appended, who does not count.
local function count(head, added, last)
  local counted = redis.call('HMGET', counts, 'id', 'bytes', 'marked')
  local bytes, marked = tonumber(counted[2]), tonumber(counted[3])
  local marks, keep = '', nil
  if counted[1] ~= head then
    bytes, marked = 0, nil
  elseif bytes - marked >= maxbytes / 16 then
    for id, at in string.gmatch(redis.call('HMGET', counts, 'marks')[1], '(%S+) (%d+)') do
      local fits = bytes + added - at <= maxbytes * 15 / 16
      marks = marks .. (fits and id .. ' ' .. at .. '\n' or '')
      keep = keep or not fits
    end
    marked = nil
  end
  bytes = bytes + added
  local fields = {'id', last, 'bytes', string.format('%.0f', bytes)}
  if not marked then
    local at = string.format('%.0f', bytes - added)
    marks = marks .. head .. ' ' .. at
    for _, value in ipairs({'marked', at, 'marks', marks}) do
      table.insert(fields, value)
    end
  end
  redis.call('HSET', counts, unpack(fields))
  return keep and string.match(marks, '^%S+')
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

local function id(i)
  return string.format('%.0f-%.0f', epoch, first + i - texts - 1)
end

local added = 0
for i = texts + 1 + skip, #ARGV do
  added = added + #ARGV[i]
end
local keep = added > 0 and count(head and head[1] or '0-0', added, id(#ARGV))
for i = texts + 1 + skip, #ARGV do
  head_epoch, head_sequence = epoch, first + i - texts - 1
  if i < #ARGV then
    redis.call('XADD', stream, id(i), 'event', ARGV[i])
  elseif keep then
    redis.call('XADD', stream, 'MINID', '=', keep, id(i), 'event', ARGV[i])
  else
    redis.call('XADD', stream, 'MAXLEN', '~', maxlen, id(i), 'event', ARGV[i])
  end
  if not restore then
    redis.call('PUBLISH', channel, ARGV[i])
  end
end
return {'ok', head_epoch, head_sequence, #ARGV - texts - skip}
