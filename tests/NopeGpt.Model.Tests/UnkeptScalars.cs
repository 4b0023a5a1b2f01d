using System.Reflection;
using System.Reflection.Emit;
using TorchSharp;

namespace NopeGpt.Tests;

/// <summary>Reads the IL of an assembly for calls after which a <see cref="Scalar"/> may be freed while libtorch reads it: those that make one
/// (conversions, ToScalar), and TorchSharp's methods that make one inside. It sees what the compiler's ban does not, such as x += y.</summary>
internal static class UnkeptScalars
{
    private const BindingFlags Every = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;

    private static readonly Dictionary<short, OpCode> Codes = typeof(OpCodes).GetFields().Select(f => (OpCode)f.GetValue(null)!).ToDictionary(c => c.Value);

    private static readonly Lazy<HashSet<MethodBase>> Unsafe = new(Reaching);

    /// <summary>"Type.Method calls Type.Method" for each such call, without those of one type, the owner.</summary>
    public static IEnumerable<string> In(Assembly assembly, Type owner) =>
        from caller in Methods(assembly)
        where caller.DeclaringType != owner
        from callee in Calls(caller)
        where Makes(callee) || Unsafe.Value.Contains(callee)
        select $"{Name(caller)} calls {Name(callee)}";

    private static bool Makes(MethodBase method) =>
        method is MethodInfo { Name: "op_Implicit" or "ToScalar" or "ToBFloat16Scalar" } made && made.ReturnType == typeof(Scalar);

    /// <summary>TorchSharp's methods that make a scalar, or call one that does.</summary>
    private static HashSet<MethodBase> Reaching()
    {
        ILookup<MethodBase, MethodBase> callers = Methods(typeof(Scalar).Assembly)
            .SelectMany(m => Calls(m).Select(callee => (Caller: m, Callee: callee))).ToLookup(c => c.Callee, c => c.Caller);
        HashSet<MethodBase> found = [];
        Queue<MethodBase> open = new(callers.Select(g => g.Key).Where(Makes));
        while (open.TryDequeue(out MethodBase? method))
        {
            foreach (MethodBase caller in callers[method])
            {
                if (!Makes(caller) && found.Add(caller)) open.Enqueue(caller);
            }
        }
        return found;
    }

    private static IEnumerable<MethodBase> Methods(Assembly assembly) =>
        Types(assembly).SelectMany(t => t.GetMethods(Every).Concat<MethodBase>(t.GetConstructors(Every)));

    // Some types of TorchSharp need packages that we leave out; they cannot be called either.
    private static IEnumerable<Type> Types(Assembly assembly)
    {
        try { return assembly.GetTypes(); }
        catch (ReflectionTypeLoadException e) { return e.Types.OfType<Type>(); }
    }

    /// <summary>The methods that a method calls or refers to, of TorchSharp and the assembly itself; generic ones by their definition.</summary>
    private static IEnumerable<MethodBase> Calls(MethodBase method)
    {
        byte[] code = Body(method);
        for (int at = 0; at < code.Length;)
        {
            OpCode op = Codes[code[at] == 0xFE ? (short)(0xFE00 | code[at + 1]) : code[at]];
            at += op.Size;
            if (op.OperandType == OperandType.InlineMethod && Resolve(method, BitConverter.ToInt32(code, at)) is { } callee) yield return callee;
            at += op.OperandType switch
            {
                OperandType.InlineNone => 0,
                OperandType.ShortInlineBrTarget or OperandType.ShortInlineI or OperandType.ShortInlineVar => 1,
                OperandType.InlineVar => 2,
                OperandType.InlineI8 or OperandType.InlineR => 8,
                OperandType.InlineSwitch => 4 + (4 * BitConverter.ToInt32(code, at)),
                _ => 4,
            };
        }
    }

    private static byte[] Body(MethodBase method)
    {
        try { return method.GetMethodBody()?.GetILAsByteArray() ?? []; }
        catch (Exception e) when (e is FileNotFoundException or TypeLoadException) { return []; }
    }

    private static MethodBase? Resolve(MethodBase from, int token)
    {
        try
        {
            MethodBase? method = from.Module.ResolveMethod(token, from.DeclaringType?.GetGenericArguments(), from.IsGenericMethod ? from.GetGenericArguments() : null);
            if (method?.DeclaringType is not { IsArray: false } type || (type.Assembly != from.Module.Assembly && type.Assembly != typeof(Scalar).Assembly)) return null;
            return method.Module.ResolveMethod(method.MetadataToken);
        }
        catch (Exception e) when (e is FileNotFoundException or TypeLoadException) { return null; }
    }

    private static string Name(MethodBase method) => $"{method.DeclaringType}.{method}";
}
