#!/usr/bin/env -S lft run
-- Does it pay to give every token its own number of steps? The paper leaves this open.
--
-- Trains a student, and evaluates it with thresholds at which a token stops early (`exit`, see docs/methods.md), and
-- with the same steps for all tokens: a fixed number of them, and a number after which all jump to the end as a token
-- that stops does. What a threshold reaches is held against the best of these at the same evaluations a token. Between
-- two numbers of evaluations their KL is interpolated along a straight line: that is what a lot for each token gives.
--   lft run scripts/token_steps.lua
--   lft run scripts/token_steps.lua -- --method fm:0.5,fw:0.5 --solver midpoint

local lft = require("lft")

local options = lft.options{
  teacher  = {"data/teacher", "folder or hub id of the model"},
  train    = {"data/corpus/train.txt", "text to train on"},
  valid    = {"data/corpus/valid.txt", "held-out text"},
  block    = {{6, 18}, "m,n: the layers m to n - 1 are replaced"},
  method   = {"kl", "training algorithm, or several one after the other: fm:0.5,fw:0.5"},
  solver   = {"euler", "solver, in training and evaluation"},
  walk     = {3, "steps of the integration in training"},
  ks       = {{1, 2, 3, 4, 5, 6}, "fixed numbers of steps"},
  most     = {{3, 6}, "largest numbers of steps of a token that may stop early"},
  exits    = {{0.02, 0.05, 0.1, 0.15, 0.2, 0.3}, "thresholds at which it does"},
  seeds    = {{1, 2, 3}, "seeds, one training each"},
  steps    = {300, "training steps"},
  batch    = {8, "sequences in a batch"},
  seq_len  = {256, "tokens in a sequence"},
  lr       = {4e-3, "peak learning rate"},
  warmup   = {20, "steps of linear warm-up"},
  dtype    = {"f32", "number format of the teacher: f32, bf16 or f16"},
  windows  = {8, "held-out windows of 256 tokens"},
  name     = {"token_steps", "name of the run"},
  report   = {"reports/token_steps.html", "where the report goes"},
}

local teacher = lft.pythia.load(options.teacher, {dtype = options.dtype})
local train = lft.data.text(options.train, {tokenizer = teacher.tokenizer, seq_len = options.seq_len})
local valid = lft.data.text(options.valid, {tokenizer = teacher.tokenizer, seq_len = 256})
local run <close> = lft.run{name = options.name, tags = {"per-token steps"}}
local reference = lft.eval.reference(teacher, {
  data = valid, block = options.block, windows = options.windows, batch = 4,
})

--- A student from the block's last layer, trained.
local function trained(seed)
  local velocity = lft.flow.velocity(teacher, {block = options.block, layer = options.block[2] - 1, seed = seed})
  local student = lft.flow.student(teacher, {velocity = velocity})
  student:train{
    [options.method:find(":") and "curriculum" or "method"] = options.method,
    solver = options.solver, walk = options.walk, kl_solver = options.solver, kl_steps = options.walk,
    data = train, steps = options.steps, batch = options.batch, lr = options.lr,
    warmup = options.warmup, seed = seed, run = run,
  }
  return student
end

--- All tokens stop after `count` of k steps, and jump along the last one's velocity.
local function stopped(student, k, count)
  return reference:evaluate(function(x0)
    local before, t = (count - 1) / k, count / k
    local x, first = x0, 0
    if count > 1 then
      local stats
      x, stats = lft.ode.solve(student.velocity, x0, {method = options.solver, t1 = before, steps = count - 1})
      first = stats.nfe
    end
    local next, stats = lft.ode.solve(student.velocity, x, {method = options.solver, t0 = before, t1 = t, steps = 1})
    return next + (1 - t) * k * (next - x), first + stats.nfe
  end)
end

--- Evaluates, and logs a row.
local function evaluate(student, seed, setting)
  local row = setting.stop and stopped(student, setting.k, setting.stop)
    or student:evaluate{data = reference, solver = options.solver, steps = setting.k, exit = setting.exit}
  row.method = options.method
  if setting.stop then row.method = ("%s, all stop after %d"):format(options.method, setting.stop) end
  if setting.exit then row.method = ("%s, exit %g"):format(options.method, setting.exit) end
  row.kind, row.solver, row.k, row.stop, row.exit = "flow", options.solver, setting.k, setting.stop, setting.exit
  row.seed = seed
  row.block = ("{%d,%d}"):format(options.block[1], options.block[2])
  run:log(row)
  return row
end

--- The lowest KL at a number of evaluations a token, where lots decide between two of the `uniform` ways.
local function by_lot(uniform, nfe)
  local lowest = math.huge
  for _, a in ipairs(uniform) do
    for _, b in ipairs(uniform) do
      if a.nfe <= nfe then
        local share = b.nfe > nfe and (nfe - a.nfe) / (b.nfe - a.nfe) or 0
        lowest = math.min(lowest, a.kl + share * (b.kl - a.kl))
      end
    end
  end
  return lowest
end

-- Measure: the same settings for every seed, in the same order.

local settings = {}
for _, k in ipairs(options.ks) do settings[#settings + 1] = {way = "fixed k", k = k} end
for _, k in ipairs(options.most) do
  for stop = 1, k - 1 do settings[#settings + 1] = {way = ("all stop early, of %d"):format(k), k = k, stop = stop} end
end
for _, k in ipairs(options.most) do
  for _, exit in ipairs(options.exits) do
    settings[#settings + 1] = {way = ("per token, at most %d"):format(k), k = k, exit = exit}
  end
end
local measured = {}
for i in ipairs(settings) do measured[i] = {} end
for _, seed in ipairs(options.seeds) do
  local student = trained(seed)
  local uniform = {}
  for i, setting in ipairs(settings) do
    local row = evaluate(student, seed, setting)
    measured[i][#measured[i] + 1] = row
    if setting.exit then row.ratio = row.kl / by_lot(uniform, row.mean_nfe) else uniform[#uniform + 1] = row end
  end
end

-- Show: means over the seeds.

local function mean(rows, column)
  local sum = 0
  for _, row in ipairs(rows) do sum = sum + row[column] end
  return sum / #rows
end

local function range(rows, column)
  local lo, hi = math.huge, -math.huge
  for _, row in ipairs(rows) do lo, hi = math.min(lo, row[column]), math.max(hi, row[column]) end
  return ("%.3f..%.3f"):format(lo, hi)
end

local best
for i, setting in ipairs(settings) do
  for _, column in ipairs{"mean_nfe", "kl", "ppl"} do setting[column] = mean(measured[i], column) end
  if setting.exit then
    setting["KL / lot"], setting.range = mean(measured[i], "ratio"), range(measured[i], "ratio")
    if not best or setting["KL / lot"] < best["KL / lot"] then best = setting end
  end
end
local setup = "%s through %s, block {%d,%d}, %d steps of %d x %d tokens, %d seeds; KL / lot: at equal evaluations"
print(setup:format(
  options.method, options.solver, options.block[1], options.block[2], options.steps, options.batch, options.seq_len,
  #options.seeds))
lft.table(settings, {columns = {"way", "k", "stop", "exit", "mean_nfe", "kl", "ppl", "KL / lot", "range"}})

local ratio = best["KL / lot"]
local template = "At equal mean NFE, per-token k gives a KL %.1f %% %s than equal steps for all (interpolated), "
  .. "at its best threshold: exit = %g with at most %d steps has %.4f in %.2f evaluations a token; over the seeds the "
  .. "ratio was %s"
local verdict = template:format(
  100 * math.abs(1 - ratio), ratio < 1 and "lower" or "higher", best.exit, best.k, best.kl, best.mean_nfe, best.range)
print(verdict)

run:finish()
print("report: " .. run:report{path = options.report, title = "A number of steps for each token", sections = {
  verdict,
  lft.plot.line{
    data = settings, x = "mean_nfe", y = "kl", group = "way", title = "KL against evaluations a token",
    x_label = "velocity evaluations a token, on average", y_label = "KL",
  },
}})
