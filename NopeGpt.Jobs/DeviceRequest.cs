using System.Globalization;
using System.Text.RegularExpressions;

namespace NopeGpt.Jobs;

/// <summary>What kind of devices a run asks for.</summary>
internal enum DeviceWish
{
    /// <summary>A GPU where there is one, else the CPU.</summary>
    Auto,

    /// <summary>The CPU, with one or several replicas on it.</summary>
    Cpu,

    /// <summary>So many GPUs, whichever are free.</summary>
    AnyGpus,

    /// <summary>These GPUs.</summary>
    NamedGpus,

    /// <summary>CPU and GPUs together, which nothing can train on.</summary>
    Mixed,
}

/// <summary>The setting `device` as it was meant: auto, cpu, cuda, cuda:N, several of these joined by commas, or cuda*N.</summary>
/// <param name="Count">Devices, with a replica of the model on each.</param>
/// <param name="Gpus">Numbers of the named GPUs, in the order of their naming; empty for other wishes.</param>
internal sealed partial record DeviceRequest(DeviceWish Wish, int Count, IReadOnlyList<int> Gpus)
{
    public const int Most = 64;

    /// <summary>For messages.</summary>
    public const string Forms = "auto, cpu, cuda, cuda:0, several joined by commas, such as cuda:0,cuda:1, or cuda*2 for any two free GPUs";

    /// <returns>Null for what is none of the forms.</returns>
    public static DeviceRequest? Parse(string text)
    {
        if (text == "auto") return new(DeviceWish.Auto, 1, []);
        if (text == "cuda") return new(DeviceWish.AnyGpus, 1, []);
        if (AnyPattern().Match(text) is { Success: true } any)
            return int.Parse(any.Groups[1].ValueSpan, CultureInfo.InvariantCulture) is >= 1 and <= Most and var count ? new(DeviceWish.AnyGpus, count, []) : null;
        if (!ListPattern().IsMatch(text)) return null;
        string[] names = text.Split(',');
        int[] gpus = [.. names.Where(n => n != "cpu").Select(Number)];
        DeviceWish wish = gpus.Length == 0 ? DeviceWish.Cpu : gpus.Length == names.Length ? DeviceWish.NamedGpus : DeviceWish.Mixed;
        return new(wish, names.Length, gpus);
    }

    /// <summary>What is wrong with a text that <see cref="Parse"/> does not take, as the end of a sentence, with the cure.</summary>
    public static string Fault(string text)
    {
        if (AnyPattern().IsMatch(text)) return $"asks for {text[(text.IndexOf('*', StringComparison.Ordinal) + 1)..]} GPUs: use cuda*1 to cuda*{Most}";
        return text.Contains('*', StringComparison.Ordinal) && text.Contains(',', StringComparison.Ordinal)
            ? "has cuda*N in a list, where only named devices can be: use cuda*N alone, or name each device"
            : $"is not a device: use {Forms}";
    }

    /// <summary>The names of GPUs.</summary>
    public static string Gpu(int number) => string.Create(CultureInfo.InvariantCulture, $"cuda:{number}");

    // cuda in a list is the first.
    private static int Number(string name) => name.Length > "cuda:".Length ? int.Parse(name.AsSpan("cuda:".Length), CultureInfo.InvariantCulture) : 0;

    [GeneratedRegex(@"\Acuda\*([0-9]{1,4})\z")]
    private static partial Regex AnyPattern();

    [GeneratedRegex(@"\A(cpu|cuda(:[0-9]{1,3})?)(,(cpu|cuda(:[0-9]{1,3})?)){0,63}\z")]
    private static partial Regex ListPattern();
}
