"""Movie Gen in MindSpore: where each section of the paper stands, and where the rest is. A room uses those below it.

report/      the sections' notebooks, executed and published as one HTML site
               run, kernel, sections, notebook, progress: what is executed when and how, and what a notebook calls
               failure: what is said of a section that failed; jupyter, prospect, live: what a person at an open
               notebook sees beside: its style, what it needs and how long that takes, a curve that moves
               pages/: overview, data, tae_training, tae_evaluation, transformer, training, sampling, parallelism,
               provenance, cost (cost_published, cost_here, cost_memory, cost_roofline, cost_sliders, cost_scaling,
               cost_questions, parallelism_proofs, parallelism_swap, tae_training_convolution, transformer_block,
               provenance_again, overview_strip, overview_way): what each page shows
               published: others' numbers; results: what runs left; provenance, reproduce: where numbers come from, and
               how a stranger gets them; planned: what is foretold of what was not run
               derive, traced, verify: pages derived again from runs, and compared; reproduced: a second report
               beside the first; crate: runs and pages as RO-Crate
               plots, curves, diagrams, tables, media, latents, wipe, markup, templates, encoders, credits, glossary,
               wording: what pages share
               own_prompt, panel, demo: prompts of one's own, in JupyterLab and on a local page
               publish: the site; markdown, formulas: LaTeX and citations; bibliography: what is cited; documents:
               numbers and references; addresses: where links and films lead; themes: light and dark; search; scales:
               all reports
               pdf: one file to print; archive: the site in one file
programs/    a verb of the command line each
  3.1.1        train_tae, transcode: the Temporal Autoencoder's training runs; files through it
  3.1.3        count, one_step: the transformer's parameters; one step of a published size
  3.1.4        encode_text: captions to embeddings
  3.2          encode_latents, train_dit, training_samples: clips to latents; the three stages, and what they sample
  3.2.1        index_data: which clips there are; fetch_assets: a film, an encoder, LPIPS
  3.4.2        sample, sample_prompts: clips of the report's captions, of one's own; sample_ways: how one comes to be;
               sampling_pipeline: prompts to clips; schedule_error: how far each schedule ends from a many-step solution
  3.5          evaluate_tae, retrieval: PSNR, SSIM, LPIPS; whether clips are nearest to their captions' own
               plan, calibrate, prove: what a recipe costs; how fast this machine is; what it can tell of large jobs;
               ship: trained weights into the repository
proofs/      what a CPU can measure of what only large jobs need: proof, records: one such quantity, a topic's
               autoencoder, tiles: 3.1.1's training in a card's form and its arithmetic; encoding and decoding
               transformer, checkpoints: what each rank holds at its start, writes, and waits for
               start, cards: what a stage reads at its start, sees, and compiles; 3.4.2 on several cards
               killed: a stage that is killed thirty times, beside the same that never is
train/       3.2   loop, step, batches, samples, turns, optim, ema (3.3), state, checkpoint, saving, resume
data/
  3.2.1        videos, streams, readers, proofs, pictures: one file, read exactly; pixels, formats: resized, written
               layouts, captions, tables: what a folder holds; datasets, ucf101, choice, splits: what is trained on
               clips, crops: a clip and its views; measuring, checking, quarantine: which are sound
               pairs: which files a command names, and where their results go
               samples: a set that is there without data of one's own; assets, film: what others made, shots of it
               latents, embeddings, index, reading: caches, what they hold, and how they are read
  3.5          scores, intervals: PSNR, SSIM, LPIPS; how far a mean may be off
tae/         3.1.1 model, coder, layers, losses, outliers, lpips, tiling, decoding, factors, weights, naming
dit/         3.1.3 model, layers, patches, positions, weights, values: what they start from; inference: to sample with
text/        3.1.4 encoders, t5, bert, clip, layers, tokenise, folders, stand_ins, embedding
flow/        3.1.2 path: X_t, V_t, times, loss; 3.4.2 schedule, sampler: Euler steps with guidance; denoising: what
             they foretell on their way
runs/        registry: which program makes what from what; fingerprint, hashes: what its result follows from; run,
             ranks, metrics, machine: what it leaves; folders, files, arrays, parts, weights: how that is written and
             read; repeated: what of it must come out the same again; signatures: what an unreadable file is; patience:
             how long the rest takes; busy: whether a silent process works
launch/      run, job, hosts, watch, guard, worker, pool, lock: processes, and how they end; fitting: whether they may
             begin
parallel/    3.1.6 mesh, ulysses, zero: what each rank holds and computes
plan/        3.1.6 flops, memory, dit_memory, tae_memory, traffic, storage, roofline, cost, text, sampling: computed,
             never measured; programs, details: of each program, of each bucket of a stage
             cards, time, duration, scaling: what a card is, how long a step and a stage take on it, and on more of
             them; grid: on many at once; published, validate: how far others' times are from it
             host, host_tasks: how fast this machine was measured to be, and what its steps then take
             verdict, variants, search: whether a recipe fits, what does, and the fastest of those; dry_run:
             MindSpore's own count
config/      params, recipe, networks, shapes, tiling: every one; loading, strict_yaml: files, overrides; decisive:
             which decide a result
device/      attention, kernels, precision, video, video_operators, updates, collectives, world, environment, profiler:
             CPU or Ascend; probes: single layers, to be timed; graph_text, graph_memory: what graphs exchange, and what
             their tensors take at once; compiled, compiler:
             whether and how operators.cpp computes; limits: cores and memory a process may take

3.1.5, spatial upsampling, is not part of this report. Importing the package imports nothing heavy: `moviegen.device`
alone loads MindSpore.
"""

from moviegen import device  # noqa: F401 - prepares the environment before any module below imports MindSpore
