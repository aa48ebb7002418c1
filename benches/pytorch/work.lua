-- The counterpart of work.py: one piece of work in lft, done on command.
--
-- Reads lines from standard input, each a number n, does the work n times and answers `done`.

local lft = require("lft")

local options = lft.options{
  work    = {"latents", "what to do; the names are those of work.py"},
  model   = {"data/teacher", "folder of the model"},
  text    = {"data/corpus/valid.txt", "text that is read"},
  block   = {{6, 18}, "m,n: the layers m to n - 1 are replaced"},
  batch   = {8, "sequences in a batch"},
  seq_len = {256, "tokens in a sequence"},
  tokens  = {64, "tokens to generate"},
}
local shape = {options.batch, options.seq_len}

local model, ids, student, text
if options.work == "ode_field" or not options.work:match("^ode_") then
  model = lft.pythia.load(options.model, {dtype = "f32"})
  text = lft.data.text(options.text, {tokenizer = model.tokenizer, seq_len = options.seq_len})
  for batch in text:batches{batch = options.batch, steps = 1, seed = 1} do ids = batch:narrow(2, 1, options.seq_len) end
  student = lft.flow.student(model, {block = options.block})
end

--- Forward, backward, clip and AdamW on given latents.
local function training(loss)
  local width = model.config.hidden_size
  local x0 = lft.randn({shape[1], shape[2], width}, {seed = 1})
  local x1 = lft.randn({shape[1], shape[2], width}, {seed = 2})
  local u = student.velocity
  local adamw = lft.optim.adamw{params = u:parameters(), lr = 1e-3}
  return function() adamw:step(loss(u, x0, x1):backward(), {clip = 1}) end
end

--- x' = tanh(x·A) on 4096 × 64.
local function batch(method, steps)
  local a, x0 = lft.randn({64, 64}, {seed = 1}) / 8, lft.randn({4096, 64}, {seed = 2})
  local function f(x) return x:matmul(a):tanh() end
  return function() lft.ode.solve(f, x0, {method = method, steps = steps, rtol = 1e-5, atol = 1e-5}) end
end

local makers = {
  latents = function() return function() model:hidden(ids, options.block[2]) end end,
  logits = function() return function() model:logits(ids) end end,
  fm = function() return training(lft.flow.matching_loss) end,
  fw = function() return training(lft.flow.walking_loss) end,
  evaluate = function()
    return function()
      student:evaluate{data = text, solver = "midpoint", steps = 3, batches = 1, batch = options.batch}
    end
  end,
  generate = function()
    local prompt = ids:narrow(1, 1, 1):narrow(2, 1, 16):reshape(16):totable()
    return function() model:generate(prompt, {max_tokens = options.tokens, temperature = 0}) end
  end,
  ode_field = function()
    local x0 = lft.randn({shape[1], shape[2], model.config.hidden_size}, {seed = 1})
    return function() lft.ode.solve(student.velocity, x0, {method = "midpoint", steps = 10, record = false}) end
  end,
  ode_tiny = function()
    local x0 = {1, 0}
    local function f(x) return {-x[2], x[1]} end
    return function()
      lft.ode.solve(f, x0, {method = "dopri5", t1 = 10, rtol = 1e-6, atol = 1e-8})
    end
  end,
  ode_dopri5 = function() return batch("dopri5") end,
  ode_rk4 = function() return batch("rk4", 20) end,
  ode_midpoint = function() return batch("midpoint", 20) end,
  ode_euler = function() return batch("euler", 20) end,
}

local work = makers[options.work]()
local function answer(word)
  io.write(word, "\n")
  io.flush()
end
answer("ready")
for line in io.lines() do
  for _ = 1, tonumber(line) do work() end
  answer("done")
end
