namespace NopeGpt.Web.Components.Parts;

/// <summary>One chart of a <see cref="ChartBoard"/>.</summary>
/// <param name="Log">True where a logarithmic axis makes sense.</param>
/// <param name="Height">In pixels.</param>
public sealed record ChartSpec(string Title, IReadOnlyList<ChartMetric> Metrics, bool Log = false, int Height = 160, bool Wide = false)
{
    public static ChartSpec Loss(int height) => new("Loss",
        [new ChartMetric("train/loss", "train", 1, Smooth: true), new ChartMetric("eval/loss", "eval", 2, Points: true)], Log: true, height, Wide: true);

    /// <summary>What a training run shows.</summary>
    public static IReadOnlyList<ChartSpec> Training { get; } =
    [
        Loss(320),
        new("Learning rate", [new ChartMetric("train/learning_rate", "learning rate", 3)]),
        new("Gradient norm", [new ChartMetric("train/gradient_norm", "gradient norm", 3, Smooth: true)], Log: true),
        new("Tokens per second", [new ChartMetric("train/tokens_per_second", "tokens per second", 3, Smooth: true)]),
        new("Utilisation", [new ChartMetric("train/mfu", "of the matrix rate", 3, Smooth: true)]),
        new("Milliseconds of a step",
        [
            new ChartMetric("time/data_ms", "data", 1, Smooth: true), new ChartMetric("time/forward_ms", "forward", 2, Smooth: true), new ChartMetric("time/backward_ms", "backward", 3, Smooth: true),
            new ChartMetric("time/optimizer_ms", "optimizer", 4, Smooth: true), new ChartMetric("time/other_ms", "other", 5, Smooth: true),
        ]),
        new("Memory", [new ChartMetric("system/memory_bytes", "process", 1), new ChartMetric("system/device_memory_bytes", "device", 2)]),
    ];
}

/// <summary>One line of a chart.</summary>
/// <param name="Name">The metric: train/loss.</param>
/// <param name="Color">1 to 5: the chart colours of the theme.</param>
/// <param name="Smooth">Drawn smoothed, with the raw line faint behind it.</param>
/// <param name="Points">Each value has a dot: for few values.</param>
public sealed record ChartMetric(string Name, string Label, int Color, bool Smooth = false, bool Points = false);
