-- POSTs the bodies of $BODIES one after the other; each thread and run begins at the first.
local bodies, at = {}, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function init()
  for path in io.popen("ls -v " .. os.getenv("BODIES") .. "/*.json"):lines() do
    local file = io.open(path, "rb")
    bodies[#bodies + 1] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end

function request()
  at = at % #bodies + 1
  return bodies[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "status": %d, "socket": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
