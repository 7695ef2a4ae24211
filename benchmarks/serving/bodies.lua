-- A wrk script: POSTs the bodies in the folder $BODIES in turn; each thread starts with the first.
-- $CHANGING (optional): digits in the bodies that are replaced by others in each request.
local bodies, index, counter = {}, 0, 0
local changing = os.getenv("CHANGING")
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function init()
  counter = os.time() % 50000 + number * 50000
  for path in io.popen("ls -v " .. os.getenv("BODIES") .. "/*.json"):lines() do
    local file = io.open(path, "rb")
    bodies[#bodies + 1] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end

function request()
  index = index % #bodies + 1
  if not changing then
    return bodies[index]
  end
  counter = (counter + 1) % 100000
  return (string.gsub(bodies[index], changing, string.format("%05d", counter), 1))
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "status": %d, "socket": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
