-- POSTs the bodies of $BODIES one after the other; each thread and run begins at the first.
-- $CHANGING, where it is given: digits in them that are others each time.
local bodies, at, sent = {}, 0, 0
local changing = os.getenv("CHANGING")
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function init()
  sent = os.time() % 50000 + number * 50000
  for path in io.popen("ls -v " .. os.getenv("BODIES") .. "/*.json"):lines() do
    local file = io.open(path, "rb")
    bodies[#bodies + 1] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end

function request()
  at = at % #bodies + 1
  if not changing then
    return bodies[at]
  end
  sent = (sent + 1) % 100000
  return (string.gsub(bodies[at], changing, string.format("%05d", sent), 1))
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "status": %d, "socket": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
