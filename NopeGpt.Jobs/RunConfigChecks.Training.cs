using System.Globalization;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;

namespace NopeGpt.Jobs;

// What can be wrong with the length of a training run and what depends on it.
public static partial class RunConfigChecks
{
    /// <param name="steps">Of the schedule; 0 where only the time ends the run, null where it is not known.</param>
    private static void Length(RunConfig config, long? steps, List<Problem> problems)
    {
        (TrainingConfig training, OptimizerConfig optimizer) = (config.Training, config.Optimizer);
        if (steps is null) return;
        if (steps > 0 && optimizer.WarmupSteps > steps)
            problems.Add(new Problem("optimizer.warmup_steps", Text(optimizer.WarmupSteps), $"is more than {Limit(config)} = {steps} steps: the rate would never reach its peak; use at most that, or a longer run"));
        if (steps == 0 && optimizer.Schedule != LearningRateSchedule.Constant)
        {
            problems.Add(new Problem("training.max_steps", Text(training.MaxSteps),
                $"leaves the schedule {Configuration.Settings.SnakeCase(optimizer.Schedule.ToString())} without a length, as training.max_minutes is the only limit: give max_steps, max_tokens or max_epochs too, or use optimizer.schedule constant"));
        }
        if (optimizer is { Schedule: LearningRateSchedule.WarmupStableDecay, DecayFraction: 0 })
            problems.Add(new Problem("optimizer.decay_fraction", "0", "leaves warmup_stable_decay no step to fall in: use a part above 0, such as 0.2, or the schedule constant"));
        long perStep = RunLength.TokensPerStep(config);
        if (config.Kind == RunKind.Pretrain && training.MaxTokens > 0 && training.MaxTokens < perStep)
        {
            problems.Add(new Problem("training.max_tokens", training.MaxTokens.ToString(CultureInfo.InvariantCulture),
                $"is less than one step's {perStep} tokens (training.batch_size, training.gradient_accumulation_steps and data.tokens_per_sample multiplied): use at least that, or smaller steps"));
        }
    }

    private static string Limit(RunConfig config) => config is { Kind: RunKind.Finetune, Training.MaxSteps: 0, Finetune.NumEpochs: > 0 } ? "what finetune.num_epochs makes" : Limit(config.Training);

    private static string Limit(TrainingConfig training) =>
        training.MaxSteps > 0 ? "training.max_steps" : training is { MaxTokens: > 0, MaxEpochs: > 0 } ? "what training.max_tokens and training.max_epochs make"
        : training.MaxTokens > 0 ? "what training.max_tokens makes" : training.MaxEpochs > 0 ? "what training.max_epochs makes" : "training.max_steps where no limit is given";
}
