using System.Buffers.Binary;
using System.Text;

namespace NopeGpt.Model.Native;

/// <summary>A symbol version that a library asks of another one.</summary>
/// <param name="Library">The other library's name, such as libstdc++.so.6.</param>
/// <param name="Version">Such as GLIBCXX_3.4.30.</param>
/// <param name="Weak">The loader accepts that the other library does not define it.</param>
/// <param name="FlagsOffset">Where the 16 bits of flags (vna_flags) are in the file.</param>
internal readonly record struct VersionNeed(string Library, string Version, bool Weak, int FlagsOffset);

/// <summary>Reads and changes the symbol versions of an ELF file (64 bits, little endian), over its bytes.
/// The layout is that of the System V ABI and of "Symbol Versioning" in the Linux Standard Base.
/// Every method throws <see cref="BadImageFormatException"/> for bytes that are not such a file.</summary>
internal static class ElfVersions
{
    /// <summary>e_machine of x86-64.</summary>
    public const ushort X64 = 62;

    private const uint VersionDefinitions = 0x6ffffffd, VersionNeeds = 0x6ffffffe;
    private const ushort Weak = 2, Base = 1;
    private const int HeaderSize = 64, SectionHeaderSize = 64;

    /// <summary>The processor that the file is for (e_machine).</summary>
    public static ushort Machine(ReadOnlySpan<byte> elf)
    {
        if (elf.Length < HeaderSize || !elf[..4].SequenceEqual("\u007fELF"u8)) throw new BadImageFormatException("not an ELF file");
        if (elf[4] != 2 || elf[5] != 1) throw new BadImageFormatException("not a little-endian ELF file of 64 bits");
        return U16(elf, 18);
    }

    /// <summary>The versions that the file needs of other libraries, in the file's order.</summary>
    public static IReadOnlyList<VersionNeed> Needed(ReadOnlySpan<byte> elf)
    {
        List<VersionNeed> needs = [];
        if (Find(elf, VersionNeeds) is not { } section) return needs;
        long entry = section.Offset;
        for (uint left = section.Count; left > 0; left--)
        {
            string library = Text(elf, section.Strings, U32(elf, entry + 4));
            long aux = entry + U32(elf, entry + 8);
            for (int count = U16(elf, entry + 2); count > 0; count--)
            {
                bool weak = (U16(elf, aux + 4) & Weak) != 0;
                needs.Add(new VersionNeed(library, Text(elf, section.Strings, U32(elf, aux + 8)), weak, (int)(aux + 4)));
                uint next = U32(elf, aux + 12);
                if (next == 0) break;
                aux += next;
            }
            uint step = U32(elf, entry + 12);
            if (step == 0) break;
            entry += step;
        }
        return needs;
    }

    /// <summary>The versions that the file defines, without the one that is only the file's own name.</summary>
    public static IReadOnlyList<string> Defined(ReadOnlySpan<byte> elf)
    {
        List<string> versions = [];
        if (Find(elf, VersionDefinitions) is not { } section) return versions;
        long entry = section.Offset;
        for (uint left = section.Count; left > 0; left--)
        {
            // The first name is the version, those after it are the versions that it builds on.
            bool isFileName = (U16(elf, entry + 2) & Base) != 0;
            if (!isFileName && U16(elf, entry + 6) > 0) versions.Add(Text(elf, section.Strings, U32(elf, entry + U32(elf, entry + 12))));
            uint step = U32(elf, entry + 16);
            if (step == 0) break;
            entry += step;
        }
        return versions;
    }

    /// <summary>A copy in which the loader accepts that `library` does not define `version`. Only right where nothing in the
    /// file uses a symbol of that version.</summary>
    /// <exception cref="ArgumentException">The file has no such need.</exception>
    public static byte[] MarkWeak(ReadOnlySpan<byte> elf, string library, string version)
    {
        foreach (VersionNeed need in Needed(elf))
        {
            if (need.Library != library || need.Version != version) continue;
            byte[] copy = elf.ToArray();
            Span<byte> flags = copy.AsSpan(need.FlagsOffset, 2);
            BinaryPrimitives.WriteUInt16LittleEndian(flags, (ushort)(BinaryPrimitives.ReadUInt16LittleEndian(flags) | Weak));
            return copy;
        }
        throw new ArgumentException($"The file does not need {version} of {library}.", nameof(version));
    }

    private readonly record struct Section(long Offset, uint Count, long Strings);

    private static Section? Find(ReadOnlySpan<byte> elf, uint type)
    {
        Machine(elf);
        ulong table = U64(elf, 40);
        int size = U16(elf, 58), count = U16(elf, 60);
        if (count == 0) return null;
        if (size != SectionHeaderSize || table > (ulong)elf.Length) throw new BadImageFormatException("the ELF section table lies outside the file");
        for (int i = 0; i < count; i++)
        {
            long header = (long)table + (long)i * size;
            if (U32(elf, header + 4) != type) continue;
            uint link = U32(elf, header + 40);
            if (link >= count) throw new BadImageFormatException("an ELF section names strings that do not exist");
            return new Section(Offset(elf, header), U32(elf, header + 44), Offset(elf, (long)table + (long)link * size));
        }
        return null;
    }

    private static long Offset(ReadOnlySpan<byte> elf, long header)
    {
        ulong offset = U64(elf, header + 24);
        return offset <= (ulong)elf.Length ? (long)offset : throw new BadImageFormatException("an ELF section lies outside the file");
    }

    private static string Text(ReadOnlySpan<byte> elf, long strings, uint offset)
    {
        ReadOnlySpan<byte> rest = At(elf, strings + offset, 0);
        int end = rest.IndexOf((byte)0);
        return end >= 0 ? Encoding.UTF8.GetString(rest[..end]) : throw new BadImageFormatException("an ELF string has no end");
    }

    private static ushort U16(ReadOnlySpan<byte> elf, long at) => BinaryPrimitives.ReadUInt16LittleEndian(At(elf, at, 2));

    private static uint U32(ReadOnlySpan<byte> elf, long at) => BinaryPrimitives.ReadUInt32LittleEndian(At(elf, at, 4));

    private static ulong U64(ReadOnlySpan<byte> elf, long at) => BinaryPrimitives.ReadUInt64LittleEndian(At(elf, at, 8));

    private static ReadOnlySpan<byte> At(ReadOnlySpan<byte> elf, long at, int length) =>
        at >= 0 && at <= elf.Length - length ? elf[(int)at..] : throw new BadImageFormatException("an ELF record lies outside the file");
}
