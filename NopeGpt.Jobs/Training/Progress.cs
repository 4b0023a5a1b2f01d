using System.Text.Json.Nodes;

namespace NopeGpt.Jobs.Training;

/// <summary>Where a training run stands: what a checkpoint keeps beside weights, optimizer and generators.</summary>
internal sealed class Progress
{
    public long Step { get; set; }
    public long Tokens { get; set; }

    /// <summary>Samples trained on: the position in the data, of which batches are a pure function.</summary>
    public long Samples { get; set; }

    /// <summary>Time of work on the run, all attempts together.</summary>
    public double Seconds { get; set; }

    /// <summary>The last step whose evaluation is done, samples included; 0 before the first.</summary>
    public long EvaluatedStep { get; set; }

    /// <summary>True while this step's evaluation is begun and not done: what a stop breaks off is done by the next attempt.</summary>
    public bool Evaluating { get; set; }

    public double LastLoss { get; set; } = double.NaN;
    public double EvalLoss { get; set; } = double.NaN;
    public double BestEvalLoss { get; set; } = double.PositiveInfinity;

    public double Loss => double.IsNaN(EvalLoss) ? LastLoss : EvalLoss;

    public JsonObject ToJson() => new()
    {
        ["step"] = Step,
        ["tokens"] = Tokens,
        ["samples"] = Samples,
        ["seconds"] = Seconds,
        ["evaluated_step"] = EvaluatedStep,
        ["evaluating"] = Evaluating,
        ["last_loss"] = Number(LastLoss),
        ["eval_loss"] = Number(EvalLoss),
        ["best_eval_loss"] = Number(BestEvalLoss),
    };

    /// <param name="samplesPerStep">For a state that does not tell its position in the data.</param>
    public void Restore(JsonObject saved, long samplesPerStep)
    {
        Step = saved["step"]!.GetValue<long>();
        Tokens = saved["tokens"]!.GetValue<long>();
        Samples = saved["samples"]?.GetValue<long>() ?? Step * samplesPerStep;
        Seconds = saved["seconds"]?.GetValue<double>() ?? 0;
        EvaluatedStep = saved["evaluated_step"]?.GetValue<long>() ?? 0;
        Evaluating = saved["evaluating"]?.GetValue<bool>() ?? false;
        LastLoss = saved["last_loss"]?.GetValue<double>() ?? double.NaN;
        EvalLoss = saved["eval_loss"]?.GetValue<double>() ?? double.NaN;
        BestEvalLoss = saved["best_eval_loss"]?.GetValue<double>() ?? double.PositiveInfinity;
    }

    // JSON has no NaN and no infinity: not known yet is null.
    private static JsonValue? Number(double value) => double.IsFinite(value) ? JsonValue.Create(value) : null;
}
