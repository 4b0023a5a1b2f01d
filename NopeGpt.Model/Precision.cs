using System.Globalization;
using System.Text.Json.Serialization;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

#pragma warning disable CA1720 // The types' own names are what a person chooses.
/// <summary>In which type training computes. Parameters, their gradients and the optimizer's state are float32 in every case.</summary>
[JsonConverter(typeof(SnakeCaseEnumConverter<Precision>))]
public enum Precision
{
    /// <summary>What the devices choose: <see cref="PrecisionChoice"/>.</summary>
    Auto,

    Float32,

    /// <summary>Products and attention in bfloat16: float32's range, 8 bits of digits.</summary>
    Bfloat16,

    /// <summary>Products and attention in float16: 11 bits of digits, numbers from 6e-8 to 65504, so that gradients need a scale (<see cref="Replicas.LossScaler"/>).</summary>
    Float16,
}
#pragma warning restore CA1720

/// <summary>The type that a run computes in, and why.</summary>
/// <param name="Precision">Never <see cref="Precision.Auto"/>.</param>
/// <param name="Reason">A part of a sentence, for the log.</param>
/// <param name="Warning">A sentence with its cure where the choice is a poor one for a device; or null.</param>
public sealed record PrecisionChoice(Precision Precision, string Reason, string? Warning = null)
{
    /// <summary>The type that was asked for, or for <see cref="Precision.Auto"/> the one that all GPUs compute fast in. A CPU computes in float32 unless asked: it is
    /// where runs are compared to the last digits, and where small models lose by the casts.</summary>
    /// <param name="devices">Of the run.</param>
    public static PrecisionChoice For(Precision asked, IReadOnlyList<ComputeUnits> devices)
    {
        if (!Enum.IsDefined(asked)) throw new ArgumentException($"precision = {(int)asked}: choose auto, float32, bfloat16 or float16.", nameof(asked));
        ArgumentOutOfRangeException.ThrowIfZero(devices.Count);
        if (asked != Precision.Auto) return new(asked, "as was asked for", Slow(asked, devices));
        string reason = "as " + string.Join(" and ", devices.Select(d => $"{d.Name} has {d.Units}").Distinct());
        // In the order of choice: bfloat16 needs no scale of the loss.
        foreach (Precision narrow in (Precision[])[Precision.Bfloat16, Precision.Float16])
            if (devices.All(d => !d.IsCpu && d.Narrow.Contains(narrow))) return new(narrow, reason);
        bool faster = devices.All(d => d.Narrow.Contains(Precision.Bfloat16));
        return new(Precision.Float32, faster ? $"{reason}; {Name(Precision.Bfloat16)}, asked for, is faster there for all but small models, and rounds" : reason);
    }

    private static string? Slow(Precision asked, IReadOnlyList<ComputeUnits> devices)
    {
        if (asked == Precision.Float32 || devices.FirstOrDefault(d => !d.Narrow.Contains(asked)) is not { } without) return null;
        string better = string.Join(" or ", without.Narrow.Append(Precision.Float32).Select(Name));
        return $"{without.Name} has no units for {Name(asked)}, which is slow there: {better} is faster";
    }

    /// <summary>A line for a log.</summary>
    public override string ToString() => $"computes in {Name(Precision)}{Precision switch
    {
        Precision.Bfloat16 => " with float32 weights",
        Precision.Float16 => " with float32 weights and a scale of the loss",
        _ => "",
    }}, {Reason}";

    internal static string Name(Precision precision) => precision.ToString().ToLower(CultureInfo.InvariantCulture);
}

/// <summary>Types by their names.</summary>
public static class Precisions
{
    /// <summary>libtorch's name of the type.</summary>
    /// <exception cref="ArgumentException">It is auto, which is no type.</exception>
    public static ScalarType Type(this Precision precision) => precision switch
    {
        Precision.Float32 => ScalarType.Float32,
        Precision.Bfloat16 => ScalarType.BFloat16,
        Precision.Float16 => ScalarType.Float16,
        _ => throw new ArgumentException($"precision = {precision}: a model computes in float32, bfloat16 or float16; auto is chosen for its device first ({nameof(PrecisionChoice)}).", nameof(precision)),
    };

    /// <summary>The sum of a branch, which is used up, and the stream, in the stream's type.</summary>
    internal static Tensor AddedTo(this Tensor branch, Tensor stream) => branch.dtype == stream.dtype ? branch.add_(stream, Scalars.One) : stream.add(branch, Scalars.One);

    /// <summary>The values in another type; the tensor itself where it has that type, or for null. Its gradient has the tensor's own type.</summary>
    internal static Tensor As(this Tensor tensor, ScalarType? type) => type is null || tensor.dtype == type ? tensor : tensor.to(type.Value);
}
