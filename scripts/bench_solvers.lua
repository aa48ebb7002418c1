#!/usr/bin/env -S lft run
-- Which solver reaches an error with the least work?
--
-- A benchmark of one call says what a step costs, not what it buys. Here every solver integrates the same problems
-- with more and more steps (the adaptive ones also with tighter and tighter tolerances), and each run is a point:
-- its error, its velocity evaluations, its time. The report draws the work-precision diagrams; the table at the end
-- reads them at equal error.

local lft = require("lft")

local options = lft.options{
  teacher = {"data/teacher", "folder or hub id of the model whose block gives the third problem"},
  valid   = {"data/corpus/valid.txt", "text whose latents are its initial states"},
  student = {"", "folder of a saved student; when empty, a field with the weights of a layer of the block"},
  block   = {{6, 12}, "m,n: the layers that the field stands for"},
  batch   = {2, "sequences in a batch of latents"},
  seq_len = {64, "tokens in a sequence"},
  steps   = {{4, 8, 16, 32, 64, 128, 256, 512, 1024}, "numbers of equal steps"},
  flow_steps = {{1, 2, 4, 8, 16}, "the same for the velocity field"},
  samples = {10, "samples of each timing"},
  warmup  = {2, "calls before them"},
  name    = {"bench_solvers", "name of the run"},
  report  = {"reports/bench_solvers.html", "where the report goes"},
}

--- ‖a − b‖ / ‖b‖ of arrays of numbers or of tensors.
local function relative_error(a, b)
  if type(b) ~= "table" then
    ---@type Tensor
    local apart = a - b
    return apart:norm():item() / b:norm():item()
  end
  local difference, size = 0, 0
  for i = 1, #b do
    difference, size = difference + (a[i] - b[i]) ^ 2, size + b[i] ^ 2
  end
  return math.sqrt(difference / size)
end

--- A reference far beyond what is measured: dopri5 at the limit of double precision.
local function exactly(f, x0, t1)
  return (lft.ode.solve(f, x0, {method = "dopri5", t1 = t1, rtol = 1e-13, atol = 1e-13}))
end

-- A circle, whose end is known; the Lotka–Volterra equations, which turn sharply twice a round; and a velocity field
-- over latents, in single precision as it is used.

local function circle(x) return {x[2], -x[1]} end
local function hunt(x) return {1.5 * x[1] - x[1] * x[2], x[1] * x[2] - 3 * x[2]} end

local teacher = lft.pythia.load(options.teacher)
local student = options.student ~= "" and lft.flow.load(options.student, teacher)
  or lft.flow.student(teacher, {velocity = lft.flow.velocity(teacher, {block = options.block, init = "teacher"})})
local text = lft.data.text(options.valid, {tokenizer = teacher.tokenizer, seq_len = options.seq_len})
local window = text:windows{count = options.batch, batch = options.batch}[1]
local latents = student:latents(window:narrow(2, 1, options.seq_len))
---@type integer
local finest = 4 * options.flow_steps[#options.flow_steps]

local problems = {
  {
    name = "circle", f = circle, x0 = {1, 0}, t1 = 10, exact = {math.cos(10), -math.sin(10)},
    steps = options.steps, tolerances = {1e-2, 1e-4, 1e-6, 1e-8, 1e-10}, targets = {1e-2, 1e-5},
  },
  {
    name = "lotka_volterra", f = hunt, x0 = {1, 1}, t1 = 5, exact = exactly(hunt, {1, 1}, 5),
    steps = options.steps, tolerances = {1e-2, 1e-4, 1e-6, 1e-8, 1e-10}, targets = {1e-2, 1e-5},
  },
  {
    name = "latents", f = student.velocity, x0 = latents, t1 = 1,
    exact = (lft.ode.solve(student.velocity, latents, {method = "dopri5", steps = finest})),
    steps = options.flow_steps, tolerances = {1e-1, 1e-2, 1e-3, 1e-4}, targets = {1e-2, 1e-3},
  },
}

--- Every way to integrate a problem: {label, solver, mode, k or rtol, options of lft.ode.solve}.
local function ways(problem)
  local list = {}
  for i, solver in ipairs(lft.ode.methods()) do
    for _, k in ipairs(problem.steps) do
      list[#list + 1] = {
        solver = solver, mode = "fixed", k = k, label = ("%s/k=%d"):format(solver, k),
        solve = {method = solver, steps = k, t1 = problem.t1},
      }
    end
    if i > #lft.ode.methods() - 3 then
      for _, rtol in ipairs(problem.tolerances) do
        list[#list + 1] = {
          solver = solver, mode = "adaptive", rtol = rtol, label = ("%s/rtol=%g"):format(solver, rtol),
          solve = {method = solver, rtol = rtol, atol = rtol / 10, t1 = problem.t1},
        }
      end
    end
  end
  return list
end

local run <close> = lft.run{name = options.name, tags = {"benchmark"}}

--- One point of the diagram, or nothing where too few steps let the solution explode.
local function point(problem, way)
  local ok, x1, stats = pcall(lft.ode.solve, problem.f, problem.x0, way.solve)
  if not ok then return nil end
  local timing = lft.bench(problem.name .. "/" .. way.label, {
    samples = options.samples, warmup = options.warmup, throughput = {stats.nfe, "evaluations"}, run = run,
  }, function() lft.ode.solve(problem.f, problem.x0, way.solve) end)
  local row = {
    problem = problem.name, solver = way.solver, mode = way.mode, k = way.k, rtol = way.rtol,
    nfe = stats.nfe, error = relative_error(x1, problem.exact), seconds = timing.median,
  }
  run:log(row)
  return row
end

--- The cost at which the error passes the target, on straight lines between the points in logarithms. Where the first
--- point is exact enough, its own cost; nil where none is.
local function cost_at(points, target, cost)
  local best = points[1] and points[1].error <= target and points[1][cost] or nil
  for i = 2, #points do
    local a, b = points[i - 1], points[i]
    if a.error > target and b.error <= target and b.error > 0 then
      local share = math.log(a.error / target) / math.log(a.error / b.error)
      local value = a[cost] ^ (1 - share) * b[cost] ^ share
      best = math.min(best or value, value)
    end
  end
  return best
end

local all = {}
for i, problem in ipairs(problems) do all[i] = ways(problem) end
local total = 0
for _, list in ipairs(all) do total = total + #list end
local bar = lft.progress(total, "solving")

for i, problem in ipairs(problems) do
  local curves, order = {}, {}
  for _, way in ipairs(all[i]) do
    local name = way.mode == "fixed" and way.solver or way.solver .. " adaptive"
    if not curves[name] then
      curves[name] = {}
      order[#order + 1] = name
    end
    curves[name][#curves[name] + 1] = point(problem, way)
    bar:step(1, problem.name .. " " .. way.label)
  end
  local rows, columns = {}, {"solver"}
  for _, target in ipairs(problem.targets) do
    columns[#columns + 1] = ("NFE at %g"):format(target)
    columns[#columns + 1] = ("ms at %g"):format(target)
  end
  for _, name in ipairs(order) do
    local row = {solver = name}
    for _, target in ipairs(problem.targets) do
      local seconds = cost_at(curves[name], target, "seconds")
      row[("NFE at %g"):format(target)] = cost_at(curves[name], target, "nfe")
      row[("ms at %g"):format(target)] = seconds and 1e3 * seconds
    end
    rows[#rows + 1] = row
  end
  print(("%s: work at equal relative error"):format(problem.name))
  lft.table(rows, {columns = columns})
end
bar:finish()

run:finish()
print("report: " .. run:report(options.report))
