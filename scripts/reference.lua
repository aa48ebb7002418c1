#!/usr/bin/env -S lft run
-- Many configurations side by side on one pass of the teacher, for the length of a real training.
--
-- A configuration is a line of `key=value` words; several are separated by semicolons. Keys are those of
-- `lft.flow.velocity` (block, init, layer, rank, learn_times), those of `Student:train` (method, curriculum,
-- lr, kl_weight, kl_steps, kl_solver, …) and `name`. The defaults train what the paper has, FM and FW at a
-- quarter and at half of the layers, on 65 million tokens:
--
--   lft run scripts/reference.lua -- --train train.txt
--   lft run scripts/reference.lua -- --train train.txt --configs "block=6:12 method=kl kl_solver=euler kl_steps=6
--     init=teacher lr=2e-3 name=kl-e6; block=6:12 curriculum=fm:0.3,kl:0.7 rank=32 name=fm-then-kl"
--
-- All configurations see the same batches. Each is evaluated with every integration of `--evaluate`, saved under
-- `--save`, and stands in the run's tables.

local lft = require("lft")

local options = lft.options{
  teacher  = {"data/teacher", "folder or hub id of the model"},
  train    = {{"data/corpus/train.txt"}, "texts to train on, or one folder that `lft data prepare` wrote"},
  valid    = {"data/corpus/valid.txt", "held-out text"},
  dtype    = {"f32", "number format of the teacher: f32, bf16 or f16"},
  configs  = {
    "block=6:12 method=fm; block=6:12 method=fw; block=6:18 method=fm; block=6:18 method=fw",
    "what to train: key=value words, configurations separated by semicolons",
  },
  steps    = {4000, "training steps of configurations that name none"},
  batch    = {64, "sequences in a batch"},
  seq_len  = {256, "tokens in a sequence"},
  lr       = {1e-3, "peak learning rate of configurations that name none"},
  warmup   = {100, "steps of linear warm-up of configurations that name none"},
  evaluate = {{"euler:1", "euler:3", "midpoint:1", "midpoint:3"}, "integrations to evaluate, solver:k"},
  windows  = {64, "held-out windows"},
  window   = {256, "tokens in a held-out window"},
  rows     = {16, "held-out windows in a batch"},
  name     = {"reference", "name of the run"},
  save     = {"", "folder that receives the trained fields; none when empty"},
}

local VELOCITY = {init = true, layer = true, rank = true, learn_times = true}

--- A word's value: a number where it looks like one, true or false, else the text.
local function value(text)
  if text == "true" or text == "false" then return text == "true" end
  return math.tointeger(text) or tonumber(text) or text
end

--- `{block =, name =, velocity = {…}, train = {…}}` of one line.
local function configuration(line)
  local config = {velocity = {}, train = {lr = options.lr, warmup = options.warmup}}
  for word in line:gmatch("%S+") do
    local key, text = word:match("^([%w_]+)=(.+)$")
    if not key then error(("a configuration consists of key=value words, not %q"):format(word)) end
    if key == "block" then
      local m, n = text:match("^(%d+):(%d+)$")
      if not m then error(("block looks like 6:12, not %q"):format(text)) end
      config.block = {math.tointeger(m), math.tointeger(n)}
    elseif key == "name" then
      config.name = text
    else
      config[VELOCITY[key] and "velocity" or "train"][key] = value(text)
    end
  end
  if not config.block then error(("the configuration %q has no block"):format(line)) end
  config.name = config.name or config.train.curriculum or config.train.method or "fw"
  return config
end

local configs, names = {}, {}
for line in options.configs:gmatch("[^;]+") do
  if line:find("%S") then
    local config = configuration(line)
    local key = ("%s-%d-%d"):format(config.name, config.block[1], config.block[2])
    if names[key] then error(("two configurations are named %s: give one a name="):format(key)) end
    config.key, names[key] = key, true
    configs[#configs + 1] = config
  end
end

local teacher = lft.pythia.load(options.teacher, {dtype = options.dtype})
local text = {tokenizer = teacher.tokenizer, seq_len = options.seq_len}
local manifest = io.open(options.train[1] .. "/manifest.json")
if manifest then
  manifest:close()
  text.order = "random"
end
local train = manifest and lft.data.open(options.train[1], text) or lft.data.text(options.train, text)
local valid = lft.data.text(options.valid, {tokenizer = teacher.tokenizer, seq_len = options.window})
local run <close> = lft.run{name = options.name, tags = {"reference"}}

local members = {}
for i, config in ipairs(configs) do
  config.velocity.block = config.block
  local velocity = lft.flow.velocity(teacher, config.velocity)
  config.student = lft.flow.student(teacher, {velocity = velocity})
  config.train.student, config.train.name = config.student, config.name
  members[i] = config.train
end
local results = lft.train.together(members, {
  data = train, batch = options.batch, steps = options.steps, run = run, label = "training",
})
if options.save ~= "" then
  for _, config in ipairs(configs) do config.student:save(options.save .. "/" .. config.key) end
end

-- Evaluate: the teacher's side once for each block.

local references = {}
local function reference(block)
  local key = table.concat(block, ",")
  references[key] = references[key] or lft.eval.reference(teacher, {
    data = valid, block = block, windows = options.windows, batch = options.rows,
  })
  return references[key]
end

local rows, columns = {}, {"block", "name", "tokens"}
for i, config in ipairs(configs) do
  local student, best = config.student, nil
  local block = ("{%d,%d}"):format(config.block[1], config.block[2])
  local row = {block = block, name = config.name, tokens = results[i].tokens}
  for _, integration in ipairs(options.evaluate) do
    local solver, k = integration:match("^(%w+):(%d+)$")
    if not solver then error(("an integration looks like euler:3, not %q"):format(integration)) end
    k = math.tointeger(k)
    local metrics = student:evaluate{data = reference(config.block), solver = solver, steps = k}
    row[integration] = metrics.kl
    if not best or metrics.kl < best.kl then best = metrics end
    run:log{
      kind = "flow", method = config.name, label = config.name, block = block, solver = solver, k = k,
      kl = metrics.kl, nmse = metrics.nmse, ppl = metrics.ppl, teacher_ppl = metrics.teacher_ppl,
      nfe = metrics.nfe, eval_tokens = metrics.tokens, train_tokens = results[i].tokens,
      params = student.velocity:parameter_count(), params_removed = student.parameters_removed,
      layers_removed = config.block[2] - config.block[1] - 1,
    }
  end
  row["nmse at best"], row["ppl at best"] = best.nmse, best.ppl
  row.params = student.velocity:parameter_count()
  rows[i] = row
end
for _, integration in ipairs(options.evaluate) do columns[#columns + 1] = integration end
for _, name in ipairs{"nmse at best", "ppl at best", "params"} do columns[#columns + 1] = name end
print(("KL on %d windows of %d tokens; %d steps of %d x %d tokens, %.0f s"):format(
  options.windows, options.window, options.steps, options.batch, options.seq_len, results[1].seconds))
lft.table(rows, {columns = columns})
