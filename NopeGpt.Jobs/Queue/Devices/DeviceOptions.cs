using System.Globalization;
using Microsoft.Extensions.Configuration;

namespace NopeGpt.Jobs.Queue;

/// <summary>What of the section Jobs is about this machine's devices.</summary>
/// <param name="NvidiaSmi">The program that tells of GPUs; empty looks for nvidia-smi in PATH where the machine has NVIDIA's driver.</param>
/// <param name="CpuSlots">Runs that work on the CPU at a time; 0 leaves the CPU to others.</param>
/// <param name="PreparationSlots">Data sets and tokenizers that are made at a time.</param>
/// <param name="CpuThreads">Threads of a run that does not say; 0 takes all cores.</param>
internal sealed record DeviceOptions(string NvidiaSmi, int CpuSlots, int PreparationSlots, int CpuThreads)
{
    private const int MostSlots = 64, MostThreads = 1024;

    /// <exception cref="UserException">A value that is no number of the range; all that are wrong are named.</exception>
    public static DeviceOptions Read(IConfiguration configuration)
    {
        IConfigurationSection jobs = configuration.GetSection("Jobs");
        List<string> problems = [];
        DeviceOptions options = new(
            jobs["NvidiaSmi"] ?? "", Whole("CpuSlots", 1, 0, MostSlots), Whole("PreparationSlots", 1, 1, MostSlots), Whole("CpuThreads", 0, 0, MostThreads));
        return problems.Count == 0 ? options : throw new UserException(string.Join("\n", problems));

        int Whole(string name, int otherwise, int least, int most)
        {
            string? text = jobs[name];
            if (string.IsNullOrWhiteSpace(text)) return otherwise;
            if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int value) && value >= least && value <= most) return value;
            problems.Add($"Jobs:{name} = {text}: use a whole number from {least} to {most}");
            return otherwise;
        }
    }
}
