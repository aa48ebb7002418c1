#!/usr/bin/env -S lft run
-- Makes a teacher: trains a Pythia from scratch and writes it as a Hugging Face folder.
--
-- `lft run scripts/pretrain.lua -- --size 6x64 --steps 200` is a first try on the embedded corpus. At scale, prepare
-- the tokens first, and the training reads them from there:
--   lft data prepare corpus/*.xz --tokenizer data/teacher --output tokens --holdout 0.01
--   lft --device cuda run scripts/pretrain.lua -- --data tokens --dtype bf16 --batch 192 --steps 9766

local lft = require("lft")

local options = lft.options{
  size       = {"24x128", "a size of the family such as 70m, or LxD: L layers of width D"},
  data       = {"", "folder of prepared tokens, read instead of train and valid"},
  train      = {{"data/corpus/train.txt"}, "text to train on"},
  valid      = {{"data/corpus/valid.txt"}, "held-out text"},
  tokenizer  = {"", "folder of a tokenizer; that of the prepared tokens, or trained on the text, when empty"},
  vocab_size = {4096, "tokens of a tokenizer that is trained"},
  context    = {2048, "longest sequence that the model is made for"},
  seq_len    = {512, "tokens in a sequence"},
  batch      = {8, "sequences in a batch"},
  accumulate = {1, "parts that a batch is computed in"},
  steps      = {1000, "optimizer steps"},
  lr         = {3e-3, "peak learning rate"},
  warmup     = {100, "steps of linear warm-up"},
  final_lr   = {0.1, "learning rate at the end as a share of the peak"},
  ema        = {0.0, "decay of an average of the weights; 0 keeps none"},
  dtype      = {"f32", "format the layers compute in: f32 or bf16"},
  store      = {"bf16", "format the weights are written in"},
  windows    = {64, "held-out windows"},
  output     = {"models/pretrained", "folder for the model"},
  name       = {"pretrain", "name of the run"},
}

--- The tokenizer: given, of the prepared tokens, or trained now.
local function tokenizer()
  if options.tokenizer ~= "" then return lft.tokenizer.load(options.tokenizer) end
  if options.data ~= "" then return lft.tokenizer.load(options.data) end
  return lft.tokenizer.train(options.train, {vocab_size = options.vocab_size})
end

--- Training and held-out data.
local function datasets(known)
  local form = {tokenizer = known, seq_len = options.seq_len, order = "shuffled"}
  if options.data == "" then
    return lft.data.text(options.train, form), lft.data.text(options.valid, form)
  end
  local train = lft.data.open(options.data, form)
  form.split = "valid"
  return train, lft.data.open(options.data, form)
end

local known = tokenizer()
local train, valid = datasets(known)
local run <close> = lft.run{name = options.name, tags = {"pretraining"}}
local fresh = lft.pythia.new{size = options.size, tokenizer = known, context = options.context}
print(("%s\n%d training tokens, %.1f epochs"):format(
  fresh, #train, options.steps * options.batch * options.seq_len / #train))

local model, result = lft.train.pretrain(fresh, {
  data = train, valid = valid, valid_windows = options.windows,
  steps = options.steps, batch = options.batch, accumulate = options.accumulate, dtype = options.dtype,
  lr = options.lr, warmup = options.warmup, final_lr = options.final_lr, ema = options.ema > 0 and options.ema or nil,
  run = run,
})

model = model:to{dtype = options.store}
model:save(options.output)
local valid_loss = assert(result.valid_loss)
run:log{
  size = options.size, parameters = model.parameter_count, tokens = result.tokens,
  loss = result.loss, valid_loss = valid_loss, valid_ppl = math.exp(valid_loss),
}
print(("%d tokens in %.0f s: loss %.3f, held out %.3f nats a token (perplexity %.2f)"):format(
  result.tokens, result.seconds, result.loss, valid_loss, math.exp(valid_loss)))
print("model: " .. options.output)
