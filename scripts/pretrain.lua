#!/usr/bin/env -S lft run
-- Makes a teacher: trains a Pythia from scratch and writes it as a Hugging Face folder.
--
-- `lft run scripts/pretrain.lua -- --size 6x64 --steps 200` is a first try on the embedded corpus. At scale, prepare
-- the tokens first, and the training reads them from there:
--   lft data prepare corpus/*.xz --tokenizer data/teacher --output tokens --holdout 0.01
--   lft --device cuda run scripts/pretrain.lua -- --data tokens --dtype bf16 --batch 192 --steps 9766 --optimizer muon
--     --lr 0.012 --final_lr 0

local lft = require("lft")

local options = lft.options{
  size       = {"24x128", "a size of the family such as 70m, or LxD: L layers of width D"},
  data       = {"", "folder of prepared tokens, read instead of train and valid"},
  train      = {{"data/corpus/train.txt"}, "text to train on"},
  valid      = {{"data/corpus/valid.txt"}, "held-out text"},
  test       = {"", "text that the finished model is measured on; none when empty"},
  test_windows = {0, "its first so many windows; all of them when 0"},
  quotes     = {"kept", "typographic quotation marks of these texts: kept, or ascii; prepared tokens have their own"},
  tokenizer  = {"", "folder of a tokenizer; that of the prepared tokens, or trained on the text, when empty"},
  vocab_size = {4096, "tokens of a tokenizer that is trained"},
  context    = {2048, "longest sequence that the model is made for"},
  seq_len    = {512, "tokens in a sequence"},
  batch      = {8, "sequences in a batch"},
  accumulate = {1, "parts that a batch is computed in"},
  steps      = {1000, "optimizer steps"},
  optimizer  = {"adamw", "adamw, or muon for the layers' matrices"},
  lr         = {3e-3, "peak learning rate"},
  warmup     = {100, "steps of linear warm-up"},
  final_lr   = {0.1, "learning rate at the end as a share of the peak"},
  weight_decay = {0.0, "decoupled weight decay"},
  clip       = {1.0, "largest gradient norm"},
  ema        = {0.0, "decay of an average of the weights; 0 keeps none"},
  dtype      = {"f32", "format the layers compute in: f32 or bf16"},
  store      = {"bf16", "format the weights are written in"},
  windows    = {64, "held-out windows during the training"},
  valid_every = {0, "steps between two held-out losses; 20 losses when 0"},
  checkpoint = {"", "folder for checkpoints, from which the same command goes on; none when empty"},
  checkpoint_every = {1000, "steps between two checkpoints"},
  output     = {"models/pretrained", "folder for the model"},
  name       = {"pretrain", "name of the run"},
}

--- The tokenizer: given, of the prepared tokens, or trained now.
local function tokenizer()
  if options.tokenizer ~= "" then return lft.tokenizer.load(options.tokenizer) end
  if options.data ~= "" then return lft.tokenizer.load(options.data) end
  return lft.tokenizer.train(options.train, {vocab_size = options.vocab_size})
end

local known = tokenizer()
local function text(paths)
  return lft.data.text(paths, {
    tokenizer = known, seq_len = options.seq_len, order = "shuffled", quotes = options.quotes,
  })
end
local function prepared(split)
  return lft.data.open(options.data, {tokenizer = known, seq_len = options.seq_len, split = split})
end

local train, valid
if options.data == "" then
  train, valid = text(options.train), text(options.valid)
else
  train, valid = prepared("train"), prepared("valid")
end
-- Read now: a file that is missing is better found before the training than after it.
local test = options.test ~= "" and text(options.test) or nil
local run <close> = lft.run{name = options.name, tags = {"pretraining"}}
local fresh = lft.pythia.new{size = options.size, tokenizer = known, context = options.context}
print(("%s\n%d training tokens, %.1f epochs"):format(
  fresh, #train, options.steps * options.batch * options.seq_len / #train))

local saved = options.checkpoint ~= ""
local model, result = lft.train.pretrain(fresh, {
  data = train, valid = valid, valid_windows = options.windows,
  valid_every = options.valid_every > 0 and options.valid_every or nil,
  steps = options.steps, batch = options.batch, accumulate = options.accumulate, dtype = options.dtype,
  optimizer = options.optimizer, lr = options.lr, warmup = options.warmup, final_lr = options.final_lr,
  weight_decay = options.weight_decay, clip = options.clip, ema = options.ema > 0 and options.ema or nil, run = run,
  checkpoint = saved and {dir = options.checkpoint, every = options.checkpoint_every} or nil, resume = saved or nil,
})

model = model:to{dtype = options.store}
model:save(options.output)
local valid_loss = assert(result.valid_loss)
local row = {
  size = options.size, parameters = model.parameter_count, tokens = result.tokens,
  loss = result.loss, valid_loss = valid_loss, valid_ppl = math.exp(valid_loss),
}
-- The model as it is written, not as it was trained.
if test then
  local windows = options.test_windows > 0 and options.test_windows or nil
  row.test_loss, row.test_tokens = lft.eval.loss(model, {data = test, windows = windows})
end
run:log(row)
print(("%d tokens in %.0f s: loss %.3f, held out %.3f nats a token (perplexity %.2f)"):format(
  result.tokens, result.seconds, result.loss, valid_loss, math.exp(valid_loss)))
if test then
  print(("%s: %.4f nats a token (perplexity %.2f) on %d tokens"):format(
    options.test, row.test_loss, math.exp(row.test_loss), row.test_tokens))
end
print("model: " .. options.output)
