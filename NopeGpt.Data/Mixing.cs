namespace NopeGpt.Data;

/// <summary>Mixing of 64-bit words: the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
/// Fixed for ever: the order of batches and the stories of a seed depend on it.</summary>
internal static class Mixing
{
    public const ulong Golden = 0x9E3779B97F4A7C15;

    public static ulong Mix(ulong x)
    {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
        return x ^ (x >> 31);
    }

    /// <summary>One word from two, in which order matters.</summary>
    public static ulong Mix(ulong a, ulong b) => Mix(Mix(a + Golden) ^ (b * Golden + 0xD1B54A32D192ED03));
}
