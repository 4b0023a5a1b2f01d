namespace NopeGpt.Model.Optimizers;

/// <summary>How the learning rate changes over the steps of a run.</summary>
public enum LearningRateSchedule
{
    Constant,
    Linear,
    Cosine,
    WarmupStableDecay,
}
