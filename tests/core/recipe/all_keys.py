"""A recipe with every key, for tests that walk over the keys, and how a refusal reads."""

import pytest

from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe import Recipe

# Every key is written out, so that walking this text finds every leaf; one source of each kind.
BASE = """
name: all-keys
seed: 2027
base:
  vocabulary_size: 512
  hidden_size: 128
  intermediate_size: 344
  layers: 4
  query_heads: 4
  kv_heads: 4
  window: 256
  rope_theta: 10000.0
  training:
    {learning_rate: 3e-3, schedule: linear, warmup_steps: 3, steps: 50, epochs: 1, global_batch: 8,
     betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.1, clip: 1.0, precision: fp32, lora: null}
  copies: {share: 0.5, span: [8, 30], far_share: 0.5, random_share: [0, 0.5]}
  minimum_copying: {distances: [20, 80], span: 16, samples: 64, accuracy: 0.9}
context: {target_length: 1024, train_length: 300, window: 256}
rope: {type: ntk, theta: null, factor: 4.0}
corpus:
  sources:
    - {path: SECRET-ids, format: jsonl, subset: one, split: train, revision: SECRET-r1, text_column: text,
       prompt_column: null, response_column: null, ids_column: ids, tokenizer: SECRET-tokenizer, limit: 5,
       bad_rows: error, longest_row: 1000, weight: 1.0}
    - {path: SECRET-prompts, format: jsonl, subset: one, split: train, revision: SECRET-r2, text_column: text,
       prompt_column: question, response_column: answer, ids_column: null, tokenizer: null, limit: 5,
       bad_rows: error, longest_row: 1000, weight: 1.0}
  validation_share: 0.05
  minimum_tokens: 10
  maximum_tokens: 100000
  deduplicate: none
  similarity: 0.8
  upsampling: {longer_than: 500, share: 0.7}
selection: {strategy: impactful, top_share: 0.2, rank_by: score, minimum_count: 1}
score:
  source: warmup
  model: null
  warmup:
    {learning_rate: 1e-3, schedule: linear, warmup_steps: 3, steps: 50, epochs: 1, global_batch: 8,
     betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.1, clip: 1.0, precision: fp32,
     lora: {rank: 8, alpha: 16.0, targets: attention, train_embeddings_and_norms: true}}
  documents: 8
  length: 256
  short_length: null
  top: 0.2
  precision: fp32
positions: {strategy: longrecipe, right_point: 100, cream_sigma: 3.0, cream_head: null, cream_relativity: 0.5,
  sentences_per_segment: [1, 1], chunks: 2, sentence_ends: ".!?\\n"}
index: {samples: 100}
extend:
  {learning_rate: 1e-3, schedule: linear, warmup_steps: 3, steps: 50, epochs: 1, global_batch: 8,
   betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.1, clip: 1.0, precision: fp32,
   lora: {rank: 8, alpha: 16.0, targets: attention, train_embeddings_and_norms: true}}
replay:
  sources:
    - {path: SECRET-replay, format: jsonl, subset: one, split: train, revision: SECRET-r3, text_column: text,
       prompt_column: question, response_column: answer, ids_column: null, tokenizer: null, limit: 5,
       bad_rows: error, longest_row: 1000}
    - {path: SECRET-replay-ids, format: jsonl, subset: one, split: train, revision: SECRET-r4, text_column: text,
       prompt_column: null, response_column: null, ids_column: ids, tokenizer: SECRET-tokenizer, limit: 5,
       bad_rows: error, longest_row: 1000}
  separator: "\\n"
  loss_on_prompt: true
  attention_across_samples: true
anneal:
  {learning_rate: 1e-4, schedule: linear, warmup_steps: 3, steps: 50, epochs: 1, global_batch: 8,
   betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.1, clip: 1.0, precision: fp32,
   lora: {rank: 8, alpha: 16.0, targets: attention, train_embeddings_and_norms: true}}
merge: {base_weight: 0.5, trained_weight: 0.5, dtype: base}
evaluation:
  {documents: 32, minimum_length: 500, buckets: 8, precision: fp32, passkey: {distances: [100, 200], trials: 20},
   copying: {distances: [100, 200], span: 16, samples: 64},
   needle: {lengths: [512, 1024], depths: [0, 0.5], tasks: [single, multikey], distractors: 3, haystack: documents,
            trials: 10},
   ruler: {lengths: [512, 1024], tasks: [vt, qa_1, qa_2], samples: 20, threshold: 85.6,
           squad: {path: SECRET-squad, sha256: SHA}, hotpotqa: {path: SECRET-hotpotqa, sha256: SHA}},
   long_ppl: {short_length: 128, step: 64, difference: 2, likelihood: -2, evaluator: base},
   context_nll: {lengths: [128, 512], stride: 64},
   benchmarks: {tasks: [mmlu, own], include_path: SECRET-tasks, limit: 5, fewshot: 2, max_gen_toks: 64,
                lengths: [1024], batch_size: 4, confirm_unsafe: false},
   stages: [base, merge],
   models: [{name: other, path: SECRET-other, revision: SECRET-r6, rope: {type: yarn, theta: null, factor: 2.0}}]}
promotion: {short: 0.02, long: 0.02, passkey: 0.05}
launch:
  {processes: 1, machines: 1, micro_batch: 1, parallel: local, sequence_degree: null, ulysses_degree: null,
   sharding: none, cpu_offload: false, threads: 1, workers: 1, engine: null,
   ray_address: null, score_devices: [auto, auto], activation_checkpointing: none, mlp_tile: null,
   loss_chunk: 512, checkpoint_every: 50, checkpoints_kept: 2, restarts: 3,
   preemption_grace: 60, gpu_limit: gpu, collective_timeout: 1800}
""".replace("SHA", "a" * 64)
MODEL = ("base=null", "model={path: SECRET-model, revision: SECRET-r5, trust_remote_code: false}")


def one_line(text, *overrides):
    """The only line of the refusal."""
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text, overrides)
    (line,) = str(caught.value).splitlines()
    return line
