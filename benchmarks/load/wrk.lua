-- Sends the requests of a file in turns. The file holds "<n bytes>\n<request>" again and again. With a second argument
-- each connection rests that many milliseconds on average, evenly spread from half to one and a half times as many,
-- between an answer and the next request. Latency counts from when the request is sent.
local requests, turn = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for size in function() return file:read("*l") end do
    requests[#requests + 1] = file:read(tonumber(size))
  end
  file:close()
  local pause_ms = tonumber(args[2] or 0)
  if pause_ms > 0 then
    math.randomseed(1)
    function delay()
      return math.random(math.floor(pause_ms / 2), math.ceil(pause_ms * 3 / 2))
    end
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nsummary {"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "n_errors": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
